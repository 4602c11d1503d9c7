"""What is modelled: Pyro programs and the parts that they are composed of."""
