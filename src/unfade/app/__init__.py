"""The page in the browser, which needs the extra `app`."""
