"""Parts that methods put on a backbone: heads and decoders."""
