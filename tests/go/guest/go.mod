module parkwarden.test/guest

go 1.21
