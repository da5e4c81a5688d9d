"""A panel to take home: a bundle in one file, and all other genes from what was measured."""
