"""One typed result document, and what draws it: a page, an evaluation page, the console."""
