"""From what a data set holds to what an encoder takes: random views and the clean input, a folder a modality."""
