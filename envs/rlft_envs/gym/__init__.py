"""Any Gymnasium environment behind rlft's contract. Importing this package imports no gymnasium."""
