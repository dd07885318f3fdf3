"""Routes over the engine: each API reads its own bodies and answers in its own form.

native      our own API                 bodies, request_body     its JSON, and that of a request
openai_images   OpenAI's images         openai_bodies, openai_edits   its bodies, and pictures sent as forms
a1111       the AUTOMATIC1111 web UI's  a1111_bodies             its bodies
health      alive, ready, metrics       pages                    the page and its files
events      jobs as streams             faults                   errors as answers
images      pictures as clients send and want them    capabilities, translate   what is offered; names to files
"""

__all__ = ()  # modules are imported by name
