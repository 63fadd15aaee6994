module parkwarden.test/plug

go 1.21
