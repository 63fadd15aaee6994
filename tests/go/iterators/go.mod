module parkwarden.test/iterators

go 1.23
