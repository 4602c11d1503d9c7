"""Data of people's own: arrays, tables and folders of images, whose kind is found out."""
