//! Matrix products into memory that is there already, with any distance between rows or columns.

use std::marker::PhantomData;

use gemm::Parallelism;

/// A matrix among borrowed numbers.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    first: *const f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    numbers: PhantomData<&'a [f32]>,
}

/// The same, to be written.
pub(super) struct MatrixMut<'a> {
    first: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    numbers: PhantomData<&'a mut [f32]>,
}

/// What becomes of the numbers that a product is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// They are replaced.
    Set,
    /// The product is added to them.
    Add,
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cores {
    /// The calling thread.
    One,
    /// All threads.
    All,
}

impl<'a> Matrix<'a> {
    /// `numbers`, row after row.
    pub(super) fn new(numbers: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(numbers, rows, columns, columns)
    }

    /// Rows that begin `row_stride` numbers apart.
    pub(super) fn strided(
        numbers: &'a [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        assert!(holds(numbers.len(), rows, columns, row_stride), "a matrix outside of its numbers");
        let first = numbers.as_ptr();
        Self { first, rows, columns, row_stride, column_stride: 1, numbers: PhantomData }
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The transposed matrix.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> MatrixMut<'a> {
    /// `numbers`, row after row.
    pub(super) fn new(numbers: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert!(holds(numbers.len(), rows, columns, columns), "a matrix outside of its numbers");
        let first = numbers.as_mut_ptr();
        Self { first, rows, columns, row_stride: columns, numbers: PhantomData }
    }

    /// Rows that begin `row_stride` numbers apart.
    ///
    /// # Safety
    /// Every row lies in one allocation, and nobody else reads or writes its numbers during `'a`.
    pub(super) unsafe fn from_raw(
        first: *mut f32,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        Self { first, rows, columns, row_stride, numbers: PhantomData }
    }

    /// One row.
    pub(super) fn row(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        // SAFETY: the row lies in the matrix, which is borrowed mutably.
        unsafe {
            let first = self.first.add(index * self.row_stride);
            std::slice::from_raw_parts_mut(first, self.columns)
        }
    }

    /// Writes `a · b`: `[rows, k] · [k, columns]`.
    pub(super) fn set(&mut self, a: Matrix<'_>, b: Matrix<'_>, store: Store, cores: Cores) {
        let k = a.columns;
        assert_eq!(
            (a.rows, b.columns, b.rows),
            (self.rows, self.columns, k),
            "shapes of a product"
        );
        // Threads cost more than they save below some 0.1 ms.
        let work = self.rows.saturating_mul(self.columns).saturating_mul(k);
        let parallelism = match cores {
            Cores::All if work > 1 << 22 => Parallelism::Rayon(0),
            _ => Parallelism::None,
        };
        let old = if store == Store::Add { 1.0 } else { 0.0 };
        // SAFETY: the three matrices lie in memory that they borrow, which is not shared with the written one, and their
        // shapes fit.
        unsafe {
            gemm::gemm(
                self.rows,
                self.columns,
                k,
                self.first,
                1,
                self.row_stride as isize,
                store == Store::Add,
                a.first,
                a.column_stride as isize,
                a.row_stride as isize,
                b.first,
                b.column_stride as isize,
                b.row_stride as isize,
                old,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

/// `a · b` in new memory, on all cores.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let (rows, columns) = (a.rows, b.columns);
    let mut numbers = Vec::with_capacity(rows * columns);
    // SAFETY: there is room for them, nobody else knows of it, and `set` writes each without reading it.
    unsafe {
        MatrixMut::from_raw(numbers.as_mut_ptr(), rows, columns, columns).set(
            a,
            b,
            Store::Set,
            Cores::All,
        );
        numbers.set_len(rows * columns);
    }
    numbers
}

fn holds(len: usize, rows: usize, columns: usize, row_stride: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= len
}
