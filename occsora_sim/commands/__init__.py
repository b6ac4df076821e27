"""One module per verb of the command line; each has `Options`, a frozen dataclass, and `run(options)`."""
