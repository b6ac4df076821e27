"""What the ground is learned from: recorded towns, what is known of a window, and the loss."""
