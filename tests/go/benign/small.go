package main

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// Locks in values of less than 16 bytes, which the allocator puts beside others: whoever has the value, or any part of it that
// leads to the lock, can unlock it.

type lockFirst struct {
	mu sync.Mutex
	n  int32
}

type lockLast struct {
	n  int32
	mu sync.Mutex
}

type lockWithin struct {
	before, between uint8
	mu              sync.Mutex
}

type embedded struct {
	sync.Mutex
	on bool
}

// One for each class: they begin at the same time.
var (
	smallLast    []*lockLast
	smallWithin  []any
	smallBytes   []any
	smallFields  []*sync.Mutex
	smallAtomics [4]atomic.Pointer[lockLast]
)

const small = 20

// Each lock has a waiter.
func waitFor(lock sync.Locker) {
	lock.Lock()
	go func() {
		lock.Lock()
		lock.Unlock()
	}()
}

func init() {
	class("small: a lock alone", func() {
		for i := 0; i < small; i++ {
			mu := new(sync.Mutex)
			waitFor(mu)
			hold(mu.Unlock)
		}
	})
	class("small: the struct that begins with the lock", func() {
		for i := 0; i < small; i++ {
			s := new(lockFirst)
			waitFor(&s.mu)
			hold(func() { s.n++; s.mu.Unlock() })
		}
	})
	class("small: the struct that ends with the lock", func() {
		for i := 0; i < small; i++ {
			s := new(lockLast)
			waitFor(&s.mu)
			smallLast = append(smallLast, s)
		}
	})
	class("small: a struct with the lock within", func() {
		for i := 0; i < small; i++ {
			s := new(lockWithin)
			waitFor(&s.mu)
			smallWithin = append(smallWithin, s)
		}
	})
	class("small: the field alone", func() {
		for i := 0; i < small; i++ {
			s := new(lockLast)
			waitFor(&s.mu)
			smallFields = append(smallFields, &s.mu)
		}
	})
	class("small: embedded, as an interface and a method", func() {
		for i := 0; i < small; i++ {
			s := new(embedded)
			waitFor(s)
			var locker sync.Locker = s
			hold(locker.Unlock)
		}
	})
	class("small: an array and a slice of locks", func() {
		for i := 0; i < small; i++ {
			array := new([1]sync.Mutex)
			waitFor(&array[0])
			rest := array[:]
			hold(func() { rest[0].Unlock() })
		}
	})
	class("small: an atomic pointer", func() {
		for i := range smallAtomics {
			s := new(lockLast)
			waitFor(&s.mu)
			smallAtomics[i].Store(s)
		}
	})
	class("small: an unsafe pointer to its last byte", func() {
		for i := 0; i < small; i++ {
			mu := new(sync.Mutex)
			waitFor(mu)
			last := unsafe.Add(unsafe.Pointer(mu), 7)
			smallBytes = append(smallBytes, last)
		}
	})
}
