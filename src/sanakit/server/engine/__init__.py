"""The engine: jobs in, pictures out, whoever asks; nothing here knows HTTP.

jobs        values: what was asked for, and how far it is      engine         the way in: submit, cancel, get, subscribe
book        unfinished jobs, where each changes its state      worker         the thread that has pictures drawn
scheduler   what draws in this process, a step at a time       stages         before the first step and after the last
drawing, groups   pictures on their way, and who takes turns   pace           how fast they are, for ETAs
store, schema     jobs and pictures in SQLite                  models         networks in memory, released by memory
files       pictures and inputs in the data folder             previews       latents as small pictures
retention   how long the history lasts
subscriptions  what happens, to whoever listens                config         models, limits and places of an engine
catalogue   what may be asked for, by name                     errors, stats  what it refuses; what it counts
"""

__all__ = ()  # its modules are imported by name: the command line reads options without torch
