-----BEGIN PRIVATE KEY-----
Sw0rdfish
-----END PRIVATE KEY-----
