"""Random views and clean input of sound."""
