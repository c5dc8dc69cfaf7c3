"""What maintains this repository: pages of its documentation. Not part of the wheel."""
