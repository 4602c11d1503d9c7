"""The engines that run a captured function, and the one cost model behind ``engine="auto"``."""

ENGINES = ("auto", "eager", "graph", "compiled")
