"""Fetch the robots, objects and scenes that are not part of this project, from their public places.

Every file is checked against a digest that is kept here. What is whole already stays; what was interrupted goes on.
Nothing is ever asked: the terms are printed, and --accept-licences accepts them.
"""

import sys

from rlft.assets.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
