"""Real-time endpoints: fleets of serving programs that answer until they are deleted.

What a client may ask for is decided in ``api``; here the programs are started, watched, replaced
and found for each invocation. How one program is started and asked is ``containers.model_server``.
"""
