"""One suite over many machines and kinds of device: Ray finds the nodes, places, moves files and tells who died."""
