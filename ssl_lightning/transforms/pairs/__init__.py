"""Random views and clean input of pairs of an image and a text."""
