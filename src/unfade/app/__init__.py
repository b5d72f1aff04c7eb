"""The page in the browser, and what is done behind it; `page` alone needs the extra `app`."""
