"""The models and guides: Pyro programs and the parts that they are composed of."""
