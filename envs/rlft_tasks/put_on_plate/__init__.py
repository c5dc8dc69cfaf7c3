"""The PutOnPlateInScene25 family: a WidowX arm puts one of 25 objects on one of 17 plates, on one of 21 tables."""
