"""Picture randomisation: what is drawn, what it does to pictures, and the proof that it did."""
