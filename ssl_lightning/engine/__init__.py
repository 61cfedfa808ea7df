"""What runs everything else: passes over data, processes, seeds, resuming, optimizers, names of classes."""
