"""A real Argilla server for someone with neither Docker nor Elasticsearch.

environment ── a private Python with argilla-server in it, made on first use
home        ── the folder of one server: database, secrets, log
process     ── start it, find one that runs, stop it
inside/     ── what the private Python runs: `launch` serves, `engine` answers searches; they import nothing of ours
"""
