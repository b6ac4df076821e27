"""The ground: columns as tokens of real squares, outpainted tile by tile on a canvas, after a plan."""
