"""Random views and clean input of text."""
