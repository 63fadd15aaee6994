use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NEW: Kernel = Kernel::from_version(6, 18);
const OLD: Kernel = Kernel::from_version(5, 15);

const MORESTACK: u64 = 0x9000;
const RUNQPUT: u64 = 0x9100;
const THROW: u64 = 0x9200;

/// Functions as bytes by name, each at its own address.
#[derive(Default)]
struct Image {
    functions: BTreeMap<String, (u64, Vec<u8>)>,
    inlined: BTreeMap<&'static str, &'static str>,
}

impl Image {
    /// A runtime whose functions all are the plainest that have a site.
    fn plain() -> Self {
        let mut image = Self::default();
        image.put("runtime.morestack_noctxt.abi0", MORESTACK, vec![0xc3]);
        image.put("runtime.runqput", RUNQPUT, vec![0xc3]);
        image.put("runtime.newproc.func1", 0x1000, Asm::new(0x1000).call(RUNQPUT).ret().done());
        for (name, entry) in [("runtime.gopark", 0x2000), ("runtime.ready", 0x3000), ("runtime.goexit1", 0x4000)] {
            image.put(name, entry, Asm::new(entry).push_rbp().ret().done());
        }
        image
    }

    fn put(&mut self, name: &str, entry: u64, bytes: Vec<u8>) {
        self.functions.insert(name.to_owned(), (entry, bytes));
    }

    fn with(name: &str, asm: Asm) -> Self {
        let mut image = Self::plain();
        image.put(name, asm.entry, asm.done());
        image
    }
}

impl Functions for Image {
    fn find(&self, name: &str) -> Option<FunctionRange> {
        let (entry, bytes) = self.functions.get(name)?;
        Some(FunctionRange { name: name.to_owned(), entry: *entry, end: entry.checked_add(bytes.len() as u64)? })
    }

    fn code(&self, range: &FunctionRange) -> Option<Vec<u8>> {
        self.functions.get(&range.name).map(|(_, bytes)| bytes.clone())
    }

    fn inlined_into(&self, name: &str) -> Option<String> {
        self.inlined.get(name).map(|&into| into.to_owned())
    }
}

/// An assembler for the few instructions of a Go prologue.
struct Asm {
    entry: u64,
    bytes: Vec<u8>,
    labels: BTreeMap<&'static str, u64>,
    short_jumps: Vec<(usize, &'static str)>,
}

impl Asm {
    fn new(entry: u64) -> Self {
        let asm = Self { entry, bytes: Vec::new(), labels: BTreeMap::new(), short_jumps: Vec::new() };
        asm.label("entry")
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn here(&self) -> u64 {
        self.entry + self.bytes.len() as u64
    }

    fn label(mut self, name: &'static str) -> Self {
        self.labels.insert(name, self.here());
        self
    }

    fn short(mut self, opcode: u8, label: &'static str) -> Self {
        self.bytes.extend([opcode, 0]);
        self.short_jumps.push((self.bytes.len() - 1, label));
        self
    }

    fn call(self, target: u64) -> Self {
        let displacement = target.wrapping_sub(self.here() + 5) as u32;
        self.raw(&[0xe8]).raw(&displacement.to_le_bytes())
    }

    fn jbe(self, label: &'static str) -> Self {
        self.short(0x76, label)
    }

    fn jmp(self, label: &'static str) -> Self {
        self.short(0xeb, label)
    }

    /// `cmp rsp, [r14+16]; jbe grow`
    fn stack_check(self) -> Self {
        self.raw(&[0x49, 0x3b, 0x66, 0x10]).jbe("grow")
    }

    /// The block that [`Self::stack_check`] branches to, with the first argument saved and restored.
    fn growth(self) -> Self {
        self.label("grow")
            .raw(&[0x48, 0x89, 0x44, 0x24, 0x08])
            .call(MORESTACK)
            .raw(&[0x48, 0x8b, 0x44, 0x24, 0x08])
            .jmp("entry")
    }

    fn push_rbp(self) -> Self {
        self.raw(&[0x55])
    }

    fn mov_rbp_rsp(self) -> Self {
        self.raw(&[0x48, 0x89, 0xe5])
    }

    fn nop5(self) -> Self {
        self.raw(&[0x0f, 0x1f, 0x44, 0x00, 0x00])
    }

    fn ret(self) -> Self {
        self.raw(&[0xc3])
    }

    fn done(mut self) -> Vec<u8> {
        for (at, label) in &self.short_jumps {
            let distance = self.labels[label].wrapping_sub(self.entry + *at as u64 + 1) as i64;
            self.bytes[*at] = i8::try_from(distance).expect("a short jump") as u8;
        }
        self.bytes
    }
}

fn planned(image: &Image, kernel: Kernel, kind: Kind) -> Result<(u64, SiteClass), PlanError> {
    let sites = plan(Arch::Amd64, kernel, image)?;
    assert_eq!(sites.iter().map(|site| site.kind).collect::<Vec<_>>(), Kind::PROBED);
    let site = sites.into_iter().find(|site| site.kind == kind).expect("all kinds are planned");
    Ok((site.address, site.class))
}

fn parked(asm: Asm) -> Result<(u64, SiteClass), PlanError> {
    planned(&Image::with("runtime.gopark", asm), NEW, Kind::Parked)
}

fn created(asm: Asm, kernel: Kernel) -> Result<(u64, SiteClass), PlanError> {
    planned(&Image::with("runtime.newproc.func1", asm), kernel, Kind::Created)
}

const NO_PARKED: Result<(u64, SiteClass), PlanError> = Err(PlanError::NoSite { function: "runtime.gopark" });

#[test]
fn a_growing_stack_is_not_counted_twice() {
    let asm = Asm::new(0x2000).stack_check().push_rbp().mov_rbp_rsp().ret().growth();
    assert_eq!(parked(asm), Ok((0x2006, SiteClass::Emulated)));
}

#[test]
fn without_a_morestack_to_recognise_the_start_over_is_a_loop() {
    let mut image =
        Image::with("runtime.gopark", Asm::new(0x2000).stack_check().push_rbp().mov_rbp_rsp().ret().growth());
    image.functions.remove("runtime.morestack_noctxt.abi0");
    assert_eq!(planned(&image, NEW, Kind::Parked), NO_PARKED);
}

#[test]
fn a_call_that_does_not_return_does_not_lead_into_stack_growth() {
    let asm = Asm::new(0x2000).stack_check().push_rbp().short(0x74, "bad").ret();
    let asm = asm.label("bad").call(THROW).raw(&[0x90]).growth();
    assert_eq!(parked(asm), Ok((0x2006, SiteClass::Emulated)));
}

#[test]
fn a_function_without_stack_check_is_probed_at_its_entry() {
    assert_eq!(parked(Asm::new(0x2000).push_rbp().mov_rbp_rsp().ret()), Ok((0x2000, SiteClass::Emulated)));
}

#[test]
fn a_path_that_returns_before_the_push_moves_the_site_ahead_of_it() {
    let asm = Asm::new(0x2000).raw(&[0x48, 0x85, 0xc0]).short(0x74, "out").push_rbp().label("out").ret();
    // `test rax, rax` is single-stepped, the `je` behind it emulated.
    assert_eq!(parked(asm), Ok((0x2003, SiteClass::Emulated)));
}

#[test]
fn a_body_that_loops_to_the_entry_has_no_site() {
    let asm = Asm::new(0x2000).raw(&[0x90]).short(0x74, "entry").raw(&[0xc3]);
    assert_eq!(parked(asm), NO_PARKED);
}

#[test]
fn no_site_behind_a_write_of_an_argument() {
    // mov cl, 1; push rbp: only the mov itself still sees the argument.
    let asm = Asm::new(0x2000).raw(&[0xb1, 0x01]).push_rbp().ret();
    assert_eq!(parked(asm), Ok((0x2000, SiteClass::SingleStep)));
    // One of two paths writes it.
    let asm = Asm::new(0x2000).short(0x74, "skip").raw(&[0xb1, 0x01]).label("skip").nop5().ret();
    assert_eq!(parked(asm), Ok((0x2000, SiteClass::Emulated)));
}

#[test]
fn no_site_behind_a_call() {
    let asm = Asm::new(0x2000).mov_rbp_rsp().call(THROW).nop5().push_rbp().ret();
    assert_eq!(parked(asm), Ok((0x2003, SiteClass::Emulated)));
}

#[test]
fn what_the_kernel_refuses_is_no_site() {
    // lock inc [rax]; ret
    assert_eq!(parked(Asm::new(0x2000).raw(&[0xf0, 0xff, 0x00]).ret()), NO_PARKED);
    let short_nop = || Image::with("runtime.gopark", Asm::new(0x2000).raw(&[0x66, 0x90]).ret());
    assert_eq!(planned(&short_nop(), NEW, Kind::Parked), Ok((0x2000, SiteClass::Emulated)));
    assert_eq!(planned(&short_nop(), OLD, Kind::Parked), NO_PARKED);
}

#[test]
fn a_nop_before_the_call_is_cheapest_where_the_kernel_makes_it_so() {
    let asm = || Asm::new(0x1000).nop5().call(RUNQPUT).ret();
    assert_eq!(created(asm(), NEW), Ok((0x1000, SiteClass::Nop5)));
    assert_eq!(created(asm(), OLD), Ok((0x1005, SiteClass::Emulated)));
}

#[test]
fn a_nop_across_a_page_is_only_emulated() {
    assert_eq!(created(Asm::new(0x1ffb).nop5().call(RUNQPUT).ret(), NEW), Ok((0x1ffb, SiteClass::Nop5)));
    assert_eq!(created(Asm::new(0x1ffc).nop5().call(RUNQPUT).ret(), NEW), Ok((0x1ffc, SiteClass::Emulated)));
}

#[test]
fn a_jump_to_the_call_skips_what_is_before_it() {
    let asm = Asm::new(0x1000).short(0x74, "call").nop5().label("call").call(RUNQPUT).ret();
    assert_eq!(created(asm, NEW), Ok((0x1007, SiteClass::Emulated)));
}

#[test]
fn before_the_register_is_loaded_there_is_no_site() {
    // nop5; mov rbx, rax; call
    let asm = Asm::new(0x1000).nop5().raw(&[0x48, 0x89, 0xc3]).call(RUNQPUT).ret();
    assert_eq!(created(asm, NEW), Ok((0x1008, SiteClass::Emulated)));
}

#[test]
fn the_call_must_be_the_only_one_and_not_optional() {
    let function = "runtime.newproc.func1";
    let callee = "runtime.runqput";
    assert_eq!(created(Asm::new(0x1000).ret(), NEW), Err(PlanError::Calls { function, callee, found: 0 }));
    assert_eq!(
        created(Asm::new(0x1000).call(RUNQPUT).call(RUNQPUT).ret(), NEW),
        Err(PlanError::Calls { function, callee, found: 2 })
    );
    let optional = Asm::new(0x1000).short(0x74, "out").call(RUNQPUT).label("out").ret();
    assert_eq!(created(optional, NEW), Err(PlanError::NoSite { function }));
    let repeated = Asm::new(0x1000).label("again").call(RUNQPUT).short(0x74, "again").ret();
    assert_eq!(created(repeated, NEW), Err(PlanError::NoSite { function }));
}

#[test]
fn code_that_cannot_be_followed_is_refused() {
    let function = "runtime.gopark";
    let opaque = |problem| Err(PlanError::Opaque { function, problem });
    // jmp rax
    assert_eq!(parked(Asm::new(0x2000).push_rbp().raw(&[0xff, 0xe0])), opaque(Opaque::IndirectJump(0x2001)));
    // An opcode that does not exist in 64-bit mode.
    assert_eq!(parked(Asm::new(0x2000).push_rbp().raw(&[0x06])), opaque(Opaque::Undecodable(0x2001)));
    // The last instruction is cut off.
    assert_eq!(parked(Asm::new(0x2000).push_rbp().raw(&[0xe8, 0x00])), opaque(Opaque::Undecodable(0x2001)));
    // je into the displacement of the following nop, which reads as `nop` there.
    let inside = Asm::new(0x2000).short(0x74, "in").raw(&[0x0f, 0x1f]).label("in").raw(&[0x40, 0x90]).ret();
    assert_eq!(parked(inside), opaque(Opaque::Overlap(0x2004)));
}

#[test]
fn a_function_that_is_also_inlined_is_refused() {
    let mut image = Image::plain();
    image.inlined.insert("runtime.gopark", "runtime.chanrecv");
    let into = "runtime.chanrecv".to_owned();
    assert_eq!(planned(&image, NEW, Kind::Parked), Err(PlanError::Inlined { function: "runtime.gopark", into }));
}

#[test]
fn functions_that_are_not_there_or_not_believable_are_refused() {
    let mut image = Image::plain();
    image.functions.remove("runtime.ready");
    assert_eq!(
        planned(&image, NEW, Kind::Readied),
        Err(PlanError::Missing { asked: "goready", function: "runtime.ready" })
    );
    image.put("runtime.ready", 0x3000, Vec::new());
    assert_eq!(planned(&image, NEW, Kind::Readied), Err(PlanError::Unreadable { function: "runtime.ready" }));
    image.put("runtime.ready", 0x3000, vec![0x90; 20_000]);
    assert_eq!(
        planned(&image, NEW, Kind::Readied),
        Err(PlanError::TooLarge { function: "runtime.ready", size: 20_000 })
    );
}

/// A Go prologue for arm64 at 0x2000 with `body` behind it, as code of `runtime.gopark`.
fn parked_arm64(body: &[u32]) -> Result<(u64, SiteClass), PlanError> {
    let grow = 3 + body.len() as i64;
    let distance = |to: i64, from: i64, bits: u32| ((to - from) as u32) & ((1 << bits) - 1);
    let mut words = vec![0xf940_0b90, 0xeb30_63ff, 0x5400_0009 | distance(grow, 2, 19) << 5];
    words.extend(body);
    // mov x3, x30; bl morestack; b entry
    words.push(0xaa1e_03e3);
    words.push(0x9400_0000 | distance((MORESTACK as i64 - 0x2000) / 4, grow + 1, 26));
    words.push(0x1400_0000 | distance(0, grow + 2, 26));
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut image = Image::plain();
    for (name, entry) in [("runtime.ready", 0x3000), ("runtime.goexit1", 0x4000)] {
        image.put(name, entry, bytes(&[0xf81e_0ffe, 0xd65f_03c0]));
    }
    image.put("runtime.newproc.func1", 0x1000, bytes(&[0x9400_0000 | ((RUNQPUT - 0x1000) / 4) as u32, 0xd65f_03c0]));
    image.put("runtime.gopark", 0x2000, bytes(&words));
    let sites = plan(Arch::Arm64, NEW, &image)?;
    Ok((sites[1].address, sites[1].class))
}

#[test]
fn arm64_sites() {
    let (store_lr, branch, ret) = (0xf81e_0ffe, 0x3400_0047, 0xd65f_03c0);
    // cbz w7 over the ret: passed once whether taken or not.
    assert_eq!(parked_arm64(&[store_lr, branch, 0xaa1f_03e0, ret]), Ok((0x2010, SiteClass::Emulated)));
    // mov x2, x0: the reason is gone before the branch.
    assert_eq!(parked_arm64(&[store_lr, 0xaa00_03e2, branch, store_lr, ret]), Ok((0x200c, SiteClass::SingleStep)));
    // ldr x28, [sp]: the g is gone at once, and what comes before is passed again when the stack grows.
    assert_eq!(parked_arm64(&[0xd503_201f, 0xf940_03fc, ret]), Ok((0x2010, SiteClass::SingleStep)));
    assert_eq!(parked_arm64(&[0xd503_201f, ret]), NO_PARKED);
    // br x16
    assert_eq!(
        parked_arm64(&[store_lr, 0xd61f_0200]),
        Err(PlanError::Opaque { function: "runtime.gopark", problem: Opaque::IndirectJump(0x2010) })
    );
}

proptest! {
    /// Whatever the bytes: no panic, no endless loop, and a site lies in its function.
    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 1..600),
        entry in prop_oneof![Just(0x2000_u64), Just(u64::MAX - 700), any::<u64>()],
        arm in any::<bool>(),
    ) {
        let mut image = Image::plain();
        for name in ["runtime.newproc.func1", "runtime.gopark", "runtime.ready", "runtime.goexit1"] {
            image.put(name, entry, bytes.clone());
        }
        let arch = if arm { Arch::Arm64 } else { Arch::Amd64 };
        for site in plan(arch, NEW, &image).into_iter().flatten() {
            prop_assert!((entry..entry + bytes.len() as u64).contains(&site.address));
        }
    }

    /// Code made of the instructions of real prologues gets deeper than random bytes do.
    #[test]
    fn any_mix_of_instructions_is_survived(
        choices in proptest::collection::vec((0_usize..10, any::<i8>()), 1..400),
    ) {
        let mut asm = Asm::new(0x2000);
        for (choice, byte) in choices {
            asm = match choice {
                0 => asm.raw(&[0x49, 0x3b, 0x66, 0x10]),
                1 | 2 => asm.raw(&[0x76, byte as u8]),
                3 => asm.raw(&[0xeb, byte as u8]),
                4 => asm.push_rbp(),
                5 => asm.call(MORESTACK),
                6 => asm.call(RUNQPUT),
                7 => asm.nop5(),
                8 => asm.raw(&[0x89, byte as u8 | 0xc0]),
                _ => asm.raw(&[0x90]),
            };
        }
        let bytes = asm.ret().done();
        let mut image = Image::plain();
        for name in ["runtime.newproc.func1", "runtime.gopark", "runtime.ready", "runtime.goexit1"] {
            image.put(name, 0x2000, bytes.clone());
        }
        let _ = plan(Arch::Amd64, NEW, &image);
    }
}

/// The slowest input found: every instruction a candidate, every one examined over the whole function.
#[test]
fn the_work_is_bounded() {
    let mut asm = Asm::new(0x2000);
    for _ in 0..(MAX_FUNCTION - 1) / 2 {
        asm = asm.raw(&[0x74, 0x00]);
    }
    assert_eq!(parked(asm.ret()), Ok((0x2000, SiteClass::Emulated)));
}
