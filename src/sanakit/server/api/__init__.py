"""Routes over the engine: each API reads its own bodies and answers in its own form.

native, pictures   our own API          bodies, request_body, event_bodies   its JSON, of requests and events, too
openai_images   OpenAI's images         openai_bodies, openai_edits   its bodies, and pictures sent as forms
a1111       the AUTOMATIC1111 web UI's  a1111_bodies             its bodies
health      alive, ready, metrics       pages                    the page and its files
events      jobs as streams             faults                   errors as answers
picture_access   who may fetch a picture
images      pictures as clients send and want them    capabilities, translate   what is offered; names to files
"""

__all__ = ()  # modules are imported by name
