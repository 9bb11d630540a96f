"""A trained recommender as a service: REST, rules, events, the page."""
