"""What was read of large annotation files, kept on the machine's disk and mapped by its processes.

Parsing COCO's training annotations takes seconds and a gigabyte; the arrays that come out take 60
MB, which all processes of a machine share when they map one file. It is found by the content of
the annotation files, and anything that speaks against it means reading them again.
"""
