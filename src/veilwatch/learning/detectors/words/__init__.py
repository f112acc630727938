"""Words of packet headers: what they are, their vectors, and a network over them.

`settings`, `fields`, `vocabulary`, `steps` and `files` serve and import no training framework;
`skipgram`, `network` and `fit` train and are imported by `fit` of the detector alone.
"""
