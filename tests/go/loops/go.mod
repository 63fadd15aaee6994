module parkwarden.test/loops

go 1.23
