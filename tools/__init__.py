"""What maintains this repository: pages of the documentation that are made. Not part of the installed package."""
