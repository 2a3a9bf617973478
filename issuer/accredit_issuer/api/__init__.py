"""The issuer over HTTP: parse, call, map the outcome. No decision is made here.

One module an audience: ``trust`` (everyone), ``agents``, ``admins``, ``history`` (the log),
``operations`` (health, metrics, documentation); ``callers`` says who is calling, ``problems`` how
no is said.
"""
