"""config.yaml as Cluster Serving wrote it, from 0.7 to 2.x: what each old key means here.

old file ──translate──> new values, and what became of each key ──rewrite──> the new form, comments kept
             │
           rules: one row per old key
"""
