"""``python -m megdet_hvd.doctor``: what this machine has, and what mends what is missing.

Facts are gathered at the edge (:mod:`.gather`, :mod:`.probes`), in processes of their own, since
a library built for other versions can end the process that imports it. Judging them
(:mod:`.verdict`, :mod:`.gpus`) goes from values to lines.
"""
