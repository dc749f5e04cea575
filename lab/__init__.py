"""How the claims of the project are measured. The laboratory knows the product; the product does not know it.

testbed      a server under traffic, whose right answers are known
peers        the servers of others
fidelity     our answers beside those of the libraries that models come from
hostile      requests, pictures and archives that mean harm
compression  pictures that are drawn, to make networks smaller on
sweeping     every model on every backend
reliability  faults, and what must hold then
pages        docs/evidence, from results and templates

Each file of this folder is a command. lab/README.md lists them.
"""
