"""The server on Ray Serve: one front with the APIs and the jobs, and replicas that draw.

deployment  front, drawers and the application    dispatcher  gives pictures to replicas, and takes what they tell
replicas    what is exchanged with them           cluster     the process of `sanakit serve --ray`
scale       how many replicas
"""

__all__ = ()  # modules are imported by name
