"""The composition root: settings in, connected parts out. Here parts meet that know nothing of each other."""
