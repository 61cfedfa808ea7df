"""The commands of `ssl-lightning`, a file each: they alone know the command line."""
