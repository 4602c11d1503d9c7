"""Every table and figure of the papers: ``table.PAPERS`` names them, ``reproducing.reproduce`` makes one."""
