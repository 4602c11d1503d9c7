"""The files of published datasets: found or fetched, read as their authors wrote them, split as their papers split them."""
