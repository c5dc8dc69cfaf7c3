"""Image randomisation: what is drawn, what it does to images, and the proof that it did."""
