-- Serves, and owns nothing: what it may do, `token-broker migrate --service-role` grants.
CREATE ROLE token_broker LOGIN;
