"""The page where people label: a server without torch, and `static`, which a browser loads."""
