"""Data sets on disk to schema objects, one file a format; each recognises its own by looking at the files.

retrieval       BEIR folders
rows            tables of texts: sts, pairs, triplets, labelled
graph           triples of a knowledge graph
interactions    ratings, clicks, baskets
images          picture sheets and folders with texts
sequences       FASTA
folders         what they share: parts, languages, limits
"""
