// Holders has a lock for each of many shapes of locking, with a goroutine that waits for it for ever. Nothing that lives leads
// to any of them. It prints, for each: its name, the waiting goroutine, the one that holds the lock (0: none does any more), and
// whether a deferred unlock of exactly this lock is pending.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

type shape struct {
	Name     string `json:"name"`
	Waiter   uint64 `json:"waiter"`
	Holder   uint64 `json:"holder"`
	Deferred bool   `json:"deferred"`
}

func goid() uint64 {
	var buffer [64]byte
	fields := strings.Fields(string(buffer[:runtime.Stack(buffer[:], false)]))
	id, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		panic(err)
	}
	return id
}

type inner struct {
	name [3]int
	mu   sync.Mutex
	rw   sync.RWMutex
	pad  [4]int
}

type embedded struct {
	n int
	sync.Mutex
}

// newMutex makes one that shares no allocation with other small values.
func newMutex() *sync.Mutex {
	return &new(struct {
		mu  sync.Mutex
		pad [4]int
	}).mu
}

// never is what holders wait for.
func never() chan int { return make(chan int) }

// started waits until the holder has the lock, or has ended.
type told chan uint64

func deferred(mu *sync.Mutex, is told) {
	mu.Lock()
	defer mu.Unlock()
	is <- goid()
	<-never()
}

func deferredField(s *inner, is told) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is <- goid()
	<-never()
}

func deferredLiteral(mu *sync.Mutex, is told) {
	mu.Lock()
	defer func() { mu.Unlock() }()
	is <- goid()
	<-never()
}

func deferredLiteralField(s *inner, is told) {
	s.mu.Lock()
	defer func() { s.mu.Unlock() }()
	is <- goid()
	<-never()
}

func readerLiteral(s *inner, is told) {
	s.rw.RLock()
	defer func() { s.rw.RUnlock() }()
	is <- goid()
	<-never()
}

// Of two locks in one struct it has the one that is not first, and another goroutine the other.
type pair struct {
	first, second sync.Mutex
	pad           [4]int
}

func deferredSecond(p *pair, is told) {
	p.second.Lock()
	defer func() { p.second.Unlock() }()
	is <- goid()
	<-never()
}

func (s *inner) unlock() { s.mu.Unlock() }

func deferredMethod(s *inner, is told) {
	s.mu.Lock()
	defer s.unlock()
	is <- goid()
	<-never()
}

func writer(s *inner, is told) {
	s.rw.Lock()
	defer s.rw.Unlock()
	is <- goid()
	<-never()
}

func reader(s *inner, is told) {
	s.rw.RLock()
	defer s.rw.RUnlock()
	is <- goid()
	<-never()
}

func looped(locks []*sync.Mutex, is told) {
	for _, mu := range locks {
		mu.Lock()
		defer mu.Unlock()
	}
	is <- goid()
	<-never()
}

func explicit(mu *sync.Mutex, is told) {
	mu.Lock()
	is <- goid()
	<-never()
	mu.Unlock()
}

func handsOver(mu *sync.Mutex, is told) {
	mu.Lock()
	defer mu.Unlock()
	mu.Unlock()
	is <- goid()
	<-never()
	mu.Lock()
}

// forCondition has let go of the lock while it waits, and its unlocking is deferred all the same.
func forCondition(cond *sync.Cond, is told) {
	cond.L.Lock()
	defer cond.L.Unlock()
	is <- goid()
	for {
		cond.Wait()
	}
}

func waitsForCondition(mu *sync.Mutex, is told) {
	cond := sync.NewCond(mu)
	mu.Lock()
	defer mu.Unlock()
	is <- goid()
	for {
		cond.Wait()
	}
}

func conditional(mu *sync.Mutex, lock bool, is told) {
	defer func() {
		if lock {
			mu.Unlock()
		}
	}()
	if lock {
		mu.Lock()
	}
	is <- goid()
	<-never()
}

func sometimes(mu *sync.Mutex, lock bool, is told) {
	if lock {
		mu.Lock()
		defer mu.Unlock()
	}
	is <- goid()
	<-never()
}

func forgets(mu *sync.Mutex, is told) {
	mu.Lock()
	is <- 0
}

func tries(mu *sync.Mutex, is told) {
	if !mu.TryLock() {
		panic("somebody has it")
	}
	defer mu.Unlock()
	is <- goid()
	<-never()
}

func deferredEmbedded(e *embedded, is told) {
	e.Lock()
	defer e.Unlock()
	is <- goid()
	<-never()
}

func locker(l sync.Locker, is told) {
	l.Lock()
	defer l.Unlock()
	is <- goid()
	<-never()
}

func value(mu *sync.Mutex, is told) {
	unlock := mu.Unlock
	mu.Lock()
	defer unlock()
	is <- goid()
	<-never()
}

// Its deferred function locks and unlocks a lock that it does not have meanwhile.
func lateUse(mu *sync.Mutex, is told) {
	defer func() {
		mu.Lock()
		mu.Unlock()
	}()
	is <- goid()
	<-never()
}

func waits(mu *sync.Mutex, is told) {
	var group sync.WaitGroup
	group.Add(1)
	mu.Lock()
	defer mu.Unlock()
	is <- goid()
	group.Wait()
}

func several(a, b *sync.Mutex, is told) {
	a.Lock()
	defer a.Unlock()
	defer fmt.Println("ended")
	b.Lock()
	defer b.Unlock()
	is <- goid()
	<-never()
}

type guarded struct {
	mu     sync.Mutex
	locked bool
	pad    [4]int
}

func (g *guarded) release() {
	if g.locked {
		g.mu.Unlock()
	}
}

func releases(g *guarded, is told) {
	defer g.release()
	is <- goid()
	<-never()
}

func generic[T any](mu *sync.Mutex, of T, is told) {
	mu.Lock()
	defer mu.Unlock()
	is <- goid()
	<-never()
	runtime.KeepAlive(of)
}

func outer(mu *sync.Mutex, is told) {
	mu.Lock()
	defer mu.Unlock()
	middle(is)
}

func size(s *inner) int {
	s.rw.RLock()
	defer s.rw.RUnlock()
	return s.name[0]
}

// Reads twice, and a writer comes in between.
func readsTwice(s *inner, is told, wait chan int) {
	s.rw.RLock()
	defer s.rw.RUnlock()
	is <- goid()
	<-wait
	size(s)
}

//go:noinline
func middle(is told) {
	is <- goid()
	<-never()
}

func run(hold func(is told)) uint64 {
	is := make(told)
	go hold(is)
	return <-is
}

func main() {
	var shapes []shape
	add := func(name string, holder uint64, pending bool, wait func(is told)) {
		is := make(told)
		go wait(is)
		shapes = append(shapes, shape{name, <-is, holder, pending})
	}
	func() {
		mu := newMutex()
		holder := run(func(is told) { deferred(mu, is) })
		add("deferred", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		s := new(inner)
		holder := run(func(is told) { deferredField(s, is) })
		add("field", holder, true, func(is told) { is <- goid(); s.mu.Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { deferredLiteral(mu, is) })
		add("literal", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		s := new(inner)
		holder := run(func(is told) { deferredLiteralField(s, is) })
		add("literal of a field", holder, true, func(is told) { is <- goid(); s.mu.Lock() })
	}()
	func() {
		s := new(inner)
		holder := run(func(is told) { readerLiteral(s, is) })
		add("reader's literal", holder, true, func(is told) { is <- goid(); s.rw.Lock() })
	}()
	func() {
		p := new(pair)
		first := run(func(is told) { explicit(&p.first, is) })
		second := run(func(is told) { deferredSecond(p, is) })
		add("first of two", first, false, func(is told) { is <- goid(); p.first.Lock() })
		add("second of two", second, true, func(is told) { is <- goid(); p.second.Lock() })
	}()
	func() {
		s := new(inner)
		holder := run(func(is told) { deferredMethod(s, is) })
		add("method", holder, false, func(is told) { is <- goid(); s.mu.Lock() })
	}()
	func() {
		s := new(inner)
		holder := run(func(is told) { writer(s, is) })
		add("writer", holder, true, func(is told) { is <- goid(); s.rw.RLock() })
	}()
	func() {
		s := new(inner)
		holder := run(func(is told) { reader(s, is) })
		add("reader", holder, true, func(is told) { is <- goid(); s.rw.Lock() })
	}()
	func() {
		locks := []*sync.Mutex{newMutex(), newMutex(), newMutex()}
		holder := run(func(is told) { looped(locks, is) })
		add("looped", holder, true, func(is told) { is <- goid(); locks[1].Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { explicit(mu, is) })
		add("explicit", holder, false, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		run(func(is told) { handsOver(mu, is) })
		holder := run(func(is told) { explicit(mu, is) })
		add("hands over", holder, false, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		cond := sync.NewCond(mu)
		run(func(is told) { forCondition(cond, is) })
		holder := run(func(is told) { explicit(mu, is) })
		add("condition", holder, false, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		run(func(is told) { waitsForCondition(mu, is) })
		holder := run(func(is told) { deferred(mu, is) })
		add("condition, mutex by name", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		run(func(is told) { conditional(mu, false, is) })
		holder := run(func(is told) { explicit(mu, is) })
		add("conditional", holder, false, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		run(func(is told) { sometimes(mu, false, is) })
		holder := run(func(is told) { sometimes(mu, true, is) })
		add("sometimes", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		run(func(is told) { sometimes(mu, false, is) })
		holder := run(func(is told) { forgets(mu, is) })
		add("forgets", holder, false, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { tries(mu, is) })
		add("tries", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		e := new(embedded)
		holder := run(func(is told) { deferredEmbedded(e, is) })
		add("embedded", holder, true, func(is told) { is <- goid(); e.Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { locker(mu, is) })
		add("locker", holder, false, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { value(mu, is) })
		add("value", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		run(func(is told) { lateUse(mu, is) })
		holder := run(func(is told) { explicit(mu, is) })
		add("late use", holder, false, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { waits(mu, is) })
		add("waits", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		a, b := newMutex(), newMutex()
		holder := run(func(is told) { several(a, b, is) })
		add("several, first", holder, true, func(is told) { is <- goid(); a.Lock() })
		add("several, last", holder, true, func(is told) { is <- goid(); b.Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { generic(mu, "text", is) })
		add("generic", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		g := new(guarded)
		run(func(is told) { releases(g, is) })
		holder := run(func(is told) { explicit(&g.mu, is) })
		add("releases", holder, false, func(is told) { is <- goid(); g.mu.Lock() })
	}()
	func() {
		mu := newMutex()
		holder := run(func(is told) { outer(mu, is) })
		add("outer", holder, true, func(is told) { is <- goid(); mu.Lock() })
	}()
	func() {
		s := new(inner)
		wait := make(chan int)
		holder := run(func(is told) { readsTwice(s, is, wait) })
		add("reads twice", holder, true, func(is told) { is <- goid(); s.rw.Lock() })
		for s.rw.TryRLock() {
			s.rw.RUnlock()
			runtime.Gosched()
		}
		close(wait)
	}()
	func() {
		shards := new([16]struct {
			mu sync.Mutex
			n  int
		})
		run(func(is told) { forgets(&shards[3].mu, is) })
		holder := run(func(is told) { deferred(&shards[5].mu, is) })
		add("shard, forgotten", 0, false, func(is told) { is <- goid(); shards[3].mu.Lock() })
		add("shard, held", holder, true, func(is told) { is <- goid(); shards[5].mu.Lock() })
	}()
	said, err := json.Marshal(map[string]any{"ready": true, "shapes": shapes})
	if err != nil {
		panic(err)
	}
	runtime.GC()
	fmt.Println(string(said))
	bufio.NewScanner(os.Stdin).Scan()
}
