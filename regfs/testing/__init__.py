"""The kit that authors of plugins, and regfs itself, test with.

`contract` is the suite that every Source has to pass, `fake` a strict registry over real sockets with `behaviour` as
its switches, `memory` a Source without a protocol, `images` small valid content, `proxy` a slow network. Nothing is
imported here: the kit needs pytest for `contract`, and h11 and trio, which regfs brings, for the rest.
"""
